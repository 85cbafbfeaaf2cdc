"""What every job shares: its log and progress, errors for people, memory and devices."""
