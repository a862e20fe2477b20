"""The door: HTTP to the contract. Hot verbs on a thin ASGI path, everything else through FastAPI, the same rules for both."""
