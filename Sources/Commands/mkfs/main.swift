import Glibc

exit(await runMkfs(Array(CommandLine.arguments.dropFirst())))
