"""What a report says, as a tree of values: blocks, sections, and what they are made from."""
