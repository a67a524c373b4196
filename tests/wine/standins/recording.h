/* One line, in UTF-8, at the end of the file that the environment variable RECORD names. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>
#include <windows.h>

static void record_line(const wchar_t *line)
{
    const wchar_t *path = _wgetenv(L"RECORD");
    char bytes[8192];
    DWORD written;
    HANDLE file = CreateFileW(path, FILE_APPEND_DATA, FILE_SHARE_READ | FILE_SHARE_WRITE, NULL, OPEN_ALWAYS, 0, NULL);
    WideCharToMultiByte(CP_UTF8, 0, line, -1, bytes, sizeof bytes, NULL, NULL);
    WriteFile(file, bytes, (DWORD)strlen(bytes), &written, NULL);
    CloseHandle(file);
}
