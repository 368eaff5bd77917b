"""Arguments, data and errors that the asyncio and the blocking variants share."""
