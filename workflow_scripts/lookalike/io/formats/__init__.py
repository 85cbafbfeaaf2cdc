"""Every table and record that a run writes."""
