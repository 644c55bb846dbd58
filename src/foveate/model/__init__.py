"""Networks: attention, blocks, and how they are put together."""
