"""The built-in models of benchkit, as plugins that use only benchkit's public names."""
