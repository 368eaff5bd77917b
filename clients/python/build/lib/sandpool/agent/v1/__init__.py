"""The generated stubs of the private contract between server and agent."""
