"""What a picture file carries beside its pixels, as named texts: PNG chunks, EXIF, XMP; read and written."""

import html
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from sfumato.errors import OutputError, OutputFormatError, PictureError

PARAMETERS = "parameters"  # A1111's infotext
CHUNK = "sfumato"  # our own JSON

_USER_COMMENT = 0x9286  # EXIF 2.3, in the Exif IFD
_EXIF_IFD = 0x8769
_MAKE, _MODEL = 0x010F, 0x0110  # where ComfyUI's WebP files keep `workflow:{...}` and `prompt:{...}`
_XMP_OPEN, _XMP_CLOSE = "<sfumato:job>", "</sfumato:job>"
_XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:sfumato="urn:sfumato:1.0">{}</rdf:Description></rdf:RDF></x:xmpmeta>'
)
_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


def read_texts(picture: Image.Image) -> dict[str, str]:
    """The named texts of an open picture. Raises PictureError if its metadata cannot be read."""
    try:
        # a PNG may have its texts behind the pixels, and `.text` reads up to the end of the file
        raw = picture.text if isinstance(picture, PngImagePlugin.PngImageFile) else picture.info
        texts = {str(key): str(value) for key, value in raw.items() if isinstance(value, str)}
        texts |= _exif_texts(picture)
    except (OSError, ValueError, SyntaxError, EOFError, KeyError, TypeError, Image.DecompressionBombError) as error:
        raise PictureError(f"the picture's metadata cannot be read: {error}") from error
    job = _xmp_job(picture.info.get("xmp"))
    if job is not None:
        texts[CHUNK] = job
    return texts


def save(picture: Image.Image, path: str | os.PathLike[str], *, metadata: bool = True, overwrite: bool = False) -> Path:
    """Writes a picture as PNG, JPEG (quality 95) or WebP (lossless), by its suffix; returns the path.

    The texts `parameters` and `sfumato` of `picture.info` go along, unless `metadata` is false. The file appears whole
    or not at all. Raises OutputError if the file exists and `overwrite` is false, if the suffix is another one, if the
    metadata does not fit into a JPEG, or if the disk refuses.
    """
    path = Path(path)
    kind = _FORMATS.get(path.suffix.lower())
    if kind is None:
        raise OutputFormatError(f"{path.name}: cannot write a picture as {path.suffix!r}; use .png, .jpg or .webp")
    texts = {key: picture.info[key] for key in (PARAMETERS, CHUNK) if key in picture.info} if metadata else {}
    plain = picture.copy()
    plain.info = {}
    temporary = path.with_name(f".{path.stem}-{secrets.token_hex(4)}.part")
    try:
        with open(temporary, "xb") as part:
            plain.save(part, kind, **_save_options(kind, texts))
            part.flush()
            os.fsync(part.fileno())
        _publish(temporary, path, overwrite=overwrite)
    except ValueError as error:  # Pillow's for metadata over JPEG's 64 KiB
        raise OutputError(f"{path.name}: {error}; write a .png or .webp, or leave the metadata out") from error
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _publish(temporary: Path, path: Path, *, overwrite: bool) -> None:
    if overwrite:
        temporary.replace(path)
        return
    try:
        os.link(temporary, path)  # unlike a rename, it fails when the name is taken
    except FileExistsError:
        raise OutputError(f"{path} exists; choose another name, or ask to overwrite it") from None
    except OSError:  # a file system without hard links
        if path.exists():
            raise OutputError(f"{path} exists; choose another name, or ask to overwrite it") from None
        temporary.replace(path)


def _save_options(kind: str, texts: Mapping[str, str]) -> dict[str, Any]:
    if kind == "PNG":
        chunks = PngImagePlugin.PngInfo()
        for key, value in texts.items():
            chunks.add_text(key, value)  # Pillow writes iTXt when the text is not latin-1
        return {"pnginfo": chunks}
    options: dict[str, Any] = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {"lossless": True, "exact": True}
    if PARAMETERS in texts:
        exif = Image.Exif()
        exif.get_ifd(_EXIF_IFD)[_USER_COMMENT] = b"UNICODE\0" + texts[PARAMETERS].encode("utf-16-be")
        options["exif"] = exif.tobytes()
    if CHUNK in texts:
        job = _XMP_OPEN + html.escape(texts[CHUNK], quote=False) + _XMP_CLOSE
        options["xmp"] = _XMP.format(job).encode()
    return options


def _exif_texts(picture: Image.Image) -> dict[str, str]:
    exif = picture.getexif()
    texts = {}
    comment = exif.get_ifd(_EXIF_IFD).get(_USER_COMMENT)
    if isinstance(comment, bytes):
        comment = _user_comment(comment)
    if comment:
        texts[PARAMETERS] = str(comment)
    for tag in (_MAKE, _MODEL):
        name, colon, text = str(exif.get(tag, "")).partition(":")
        if colon and name in ("prompt", "workflow"):
            texts[name] = text.rstrip("\0")
    return texts


def _user_comment(comment: bytes) -> str:
    """The text of an EXIF UserComment: eight bytes name the encoding. UTF-16 has no byte order there: both are met."""
    code, body = comment[:8], comment[8:]
    if code == b"UNICODE\0":
        big = body.decode("utf-16-be", "replace")
        little = body.decode("utf-16-le", "replace")
        return max(big, little, key=lambda text: sum(character < "\u0250" for character in text)).rstrip("\0")
    if code in (b"ASCII\0\0\0", bytes(8)):
        return body.decode("utf-8", "replace").rstrip("\0")
    return comment.decode("utf-8", "replace").rstrip("\0")


def _xmp_job(packet: object) -> str | None:
    text = packet.decode("utf-8", "replace") if isinstance(packet, bytes) else packet
    if not isinstance(text, str) or _XMP_OPEN not in text:
        return None
    return html.unescape(text.split(_XMP_OPEN, 1)[1].split(_XMP_CLOSE, 1)[0])
