"""The built-in norms of benchkit, as plugins that use only benchkit's public names."""
