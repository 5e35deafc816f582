"""Web tools: their forms, the requests they become, and the bridge to the Scipion environment."""
