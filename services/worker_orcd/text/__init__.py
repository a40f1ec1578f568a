"""From tokens to text: whole characters, stop strings, and what has to wait for either."""
