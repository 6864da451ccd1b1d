// LinuxBlockIO
