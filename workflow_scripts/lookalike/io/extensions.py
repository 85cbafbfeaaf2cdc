"""Which files are taken for images where they are listed, by their names alone."""

# The formats that are decoded, and those that people have beside them and would miss.
EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jp2"),
    *(".heic", ".heif", ".jxl"),  # refused by name: they must not be missing in silence
)
