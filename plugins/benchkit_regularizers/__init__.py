"""The built-in regularizers of benchkit, as plugins that use only benchkit's public names."""
