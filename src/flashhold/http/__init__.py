"""The door: HTTP to the contract. Hot verbs on a thin ASGI path, all else through FastAPI, the same rules for both."""
