"""The whole configuration: how it is composed and read back, and the options that belong to no other room."""
