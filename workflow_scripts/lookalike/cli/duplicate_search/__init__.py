"""Groups of duplicates in a folder: reading it once, comparing its images, calibrating a threshold, the HTML page."""
