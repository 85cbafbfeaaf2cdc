"""Reading and writing: every format of files, images and archives in one place."""
