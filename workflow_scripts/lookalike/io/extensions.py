"""The file name extensions that count as images when a folder is listed."""

# Formats that are decoded, and common ones that are not, so that they are reported instead of silently ignored.
EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jp2"),
    *(".heic", ".heif", ".jxl"),  # rejected with a reason when they are read
)
