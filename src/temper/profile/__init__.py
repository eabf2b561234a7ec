"""One frozen, hashable description of a deployment: its schema, its storage, its presets."""
