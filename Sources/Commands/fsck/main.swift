import Glibc

exit(await runFsck(Array(CommandLine.arguments.dropFirst())))
