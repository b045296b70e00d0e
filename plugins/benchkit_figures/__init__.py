"""The built-in figures of benchkit, as plugins that use only benchkit's public names."""
