"""The server: a queue that loses nothing, workers that may be killed, and an HTTP API over them.

    client -> guard (host, origin, token, size) -> routes -> Service -> queue (SQLite) -> Runner -> worker process

The process that answers HTTP owns the database and never imports torch. A worker process draws; it speaks JSON lines
over its pipes and knows no database. Pictures that come from outside are decoded by a child that lives for one of them.
"""
