/* ARMSLEEP, ARMBCAST and CLPLOGCMD: one program under three names. It appends its name and arguments, in UTF-8, to the file that the
   environment variable RECORD names. As ARMSLEEP it then sleeps RECORD_MS milliseconds for each second that was asked for. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>
#include <windows.h>

static void append(const char *line)
{
    const wchar_t *path = _wgetenv(L"RECORD");
    HANDLE file = CreateFileW(path, FILE_APPEND_DATA, FILE_SHARE_READ | FILE_SHARE_WRITE, NULL, OPEN_ALWAYS, 0, NULL);
    DWORD written;
    WriteFile(file, line, (DWORD)strlen(line), &written, NULL);
    CloseHandle(file);
}

int wmain(int count, wchar_t **words)
{
    wchar_t line[4096] = L"";
    char bytes[8192];
    wchar_t *name = wcsrchr(words[0], L'\\');
    const wchar_t *scale = _wgetenv(L"RECORD_MS");
    name = _wcsupr(name ? name + 1 : words[0]);
    if (wcsstr(name, L".EXE"))
        *wcsstr(name, L".EXE") = 0;
    wcscat(line, name);
    for (int n = 1; n < count; n++) {
        wcscat(line, L"|");
        wcscat(line, words[n]);
    }
    wcscat(line, L"\n");
    WideCharToMultiByte(CP_UTF8, 0, line, -1, bytes, sizeof bytes, NULL, NULL);
    append(bytes);
    if (!wcscmp(name, L"ARMSLEEP"))
        Sleep(_wtoi(words[1]) * (scale ? _wtoi(scale) : 20));
    return 0;
}
