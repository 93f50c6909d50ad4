"""`raytensor gateway`: an OpenAI-compatible API in front of a subnet's best miners."""
