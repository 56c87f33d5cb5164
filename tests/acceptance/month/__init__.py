"""A month of a business, played through the real system in minutes: `make demo-business`."""
