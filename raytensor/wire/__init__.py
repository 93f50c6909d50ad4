"""The open wire: validators ask miners of other operators by signed HTTP (btauth/1).

    client:  Task -> sign -> POST -> Response | Failure
    server:  bytes -> size -> header shape -> receiver -> freshness -> signature -> admission -> replay -> limits
             -> decode -> handler

Everything that arrives is a stranger's until its signature is checked, and stays bytes until it was decoded within
bounds. A server needs its own address (ss58) and no private key; a client signs each try with a new nonce.
"""
