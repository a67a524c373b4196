/* One line, in UTF-8, at the end of the file that the environment variable RECORD names, with `suffix` behind its name. A file that
   somebody else is writing at the moment is waited for. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>
#include <windows.h>

static void record_line(const wchar_t *line, const wchar_t *suffix)
{
    wchar_t path[MAX_PATH];
    char bytes[8192];
    DWORD written;
    HANDLE file;
    swprintf(path, MAX_PATH, L"%ls%ls", _wgetenv(L"RECORD"), suffix);
    while ((file = CreateFileW(path, FILE_APPEND_DATA, FILE_SHARE_READ | FILE_SHARE_WRITE, NULL, OPEN_ALWAYS, 0, NULL)) == INVALID_HANDLE_VALUE)
        Sleep(2);
    WideCharToMultiByte(CP_UTF8, 0, line, -1, bytes, sizeof bytes, NULL, NULL);
    WriteFile(file, bytes, (DWORD)strlen(bytes), &written, NULL);
    CloseHandle(file);
}
