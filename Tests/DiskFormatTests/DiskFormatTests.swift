// DiskFormatTests
