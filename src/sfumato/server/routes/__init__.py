"""The native API's routes, `/sfumato/v1`, one file for each kind of thing."""
