"""What is wrong with data, told before it costs anything."""
