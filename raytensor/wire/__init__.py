"""The open wire: validators ask miners of other operators by signed HTTP (btauth/1).

    client:  Task -> sign -> POST -> Response | Failure
    server:  bytes -> size -> header shape -> receiver -> freshness -> signature -> admission -> replay -> limits
             -> decode -> handler

What arrives is untrusted: it stays bytes until its signature is checked, and is decoded within bounds. A server needs
the ss58 address of its hotkey and no private key; a client signs each attempt with a new nonce.
"""
