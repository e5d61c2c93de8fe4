"""Look at data before any GPU hour: every defect by file name, class frequencies, and a page with samples."""
