"""The file name extensions that count as images when a folder is listed."""

# Formats that are decoded; the last line needs the extra `formats`, without which they are reported as rejected.
EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jp2"),
    *(".heic", ".heif", ".hif", ".jxl"),
)
