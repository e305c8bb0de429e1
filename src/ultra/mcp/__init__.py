"""The MCP server: agents ask Ultra's ensembles as tools. Needs the extra ``mcp``, and ``serve`` for HTTP."""
