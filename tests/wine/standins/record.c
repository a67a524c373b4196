/* ARMSLEEP, ARMBCAST and CLPLOGCMD: one program under three names. It records its name and its arguments. As ARMSLEEP it then sleeps
   RECORD_MS milliseconds for each second that was asked for; as HOLD it does so without a record, for stand-ins that wait;
   a file that HOLD is given cannot be renamed as long as it waits. As RUN it records that a verb was run: `run agent start`.
   A script's own steps of one second go into a file of their own: they are made while something else runs, and a batch file's line is
   lost when its file is being written by another process in that moment. */
#include "recording.h"

int wmain(int count, wchar_t **words)
{
    wchar_t line[4096] = L"";
    wchar_t *name = wcsrchr(words[0], L'\\');
    const wchar_t *scale = _wgetenv(L"RECORD_MS");
    name = _wcsupr(name ? name + 1 : words[0]);
    if (wcsstr(name, L".EXE"))
        *wcsstr(name, L".EXE") = 0;
    if (!wcscmp(name, L"RUN")) {
        swprintf(line, 4096, L"run %ls %ls\n", words[1], words[2]);
        record_line(line, L"");
        return 0;
    }
    wcscat(line, name);
    for (int n = 1; n < count; n++) {
        wcscat(line, L"|");
        wcscat(line, words[n]);
    }
    wcscat(line, L"\n");
    if (wcscmp(name, L"HOLD"))
        record_line(line, wcscmp(line, L"ARMSLEEP|1\n") ? L"" : L".steps");
    if (!wcscmp(name, L"HOLD") && count > 2) {
        CreateFileW(words[2], GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_WRITE, NULL, OPEN_EXISTING, 0, NULL);
        puts("held");
        fflush(stdout);
    }
    if (!wcscmp(name, L"ARMSLEEP") || !wcscmp(name, L"HOLD"))
        Sleep(_wtoi(words[1]) * (scale ? _wtoi(scale) : 20));
    return 0;
}
