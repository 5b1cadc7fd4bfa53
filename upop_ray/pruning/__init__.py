"""The algorithm in pure torch: sites, gates, the ranking and the exact slice."""
