"""The key/value cache as the scheduler sees it: blocks, counts, and equal beginnings found again."""
