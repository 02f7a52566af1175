"""The HTTP APIs that other programs already speak: translators from their words to a Request, and back from a job.

Each lowers to the one Request and the one queue of `sfumato.server.service`; none touches a tensor or the database.
"""
