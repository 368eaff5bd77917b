"""The client for asyncio, written by hand. The blocking one, in `sandpool._sync`, is made from it."""
