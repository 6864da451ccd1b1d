// DiskFormat
