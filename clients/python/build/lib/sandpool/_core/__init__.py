"""What a client of sandpool does apart from waiting: requests, answers, errors, when to retry.

Nothing in here does input or output, sleeps or knows a channel, so that a blocking client and one for asyncio are both
thin: they execute the `Call` objects that `pools`, `templates` and `sandboxes` make.
"""
