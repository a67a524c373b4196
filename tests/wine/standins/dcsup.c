/* A stand-in for `dcsup hook start|stop|watch`, its worker and its launcher, all in one process. It plays their part of the protocol: sign of
   life, claim by rename while holding journal\<T>.<N>.live, journal, end. How it fails is said by the environment variable MODE:

   working                      ends 0 when all is done
   code-N                       ends with N at once
   crash                        ends as after an access violation
   hang                         never gives a sign of life; its process id is in the node folder's file `hanging`
   before, during, after, late  is killed with its ticket busy: before its first command, while it runs, when it has ended, and when its end
                                stands in the journal
   split-N, split-hold-N        a launcher of its own has the first command, and runs it, or lives on without running it; the hook ends with N

   For a watch, the file `end` in the watch folder ends it with 40; its content becomes the code. */
#include "recording.h"

#define LIFE_MS 20000

static wchar_t folder[MAX_PATH], ticket[200], mode[40], service_name[80], parent_file[MAX_PATH];
static unsigned beats;
static int once;

static void put(const wchar_t *path, const char *text)
{
    HANDLE file = CreateFileW(path, GENERIC_WRITE, FILE_SHARE_READ | FILE_SHARE_WRITE, NULL, CREATE_ALWAYS, 0, NULL);
    DWORD written;
    WriteFile(file, text, (DWORD)strlen(text), &written, NULL);
    CloseHandle(file);
}

static int get(const wchar_t *path, char *text, int room)
{
    HANDLE file = CreateFileW(path, GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, NULL, OPEN_EXISTING, 0, NULL);
    DWORD count = 0;
    text[0] = 0;
    if (file == INVALID_HANDLE_VALUE)
        return 0;
    ReadFile(file, text, room - 1, &count, NULL);
    text[count] = 0;
    CloseHandle(file);
    return 1;
}

static wchar_t *path_of(const wchar_t *sub, const wchar_t *name)
{
    static wchar_t paths[8][MAX_PATH * 2];
    static int turn;
    wchar_t *path = paths[turn++ % 8];
    swprintf(path, MAX_PATH * 2, L"%ls\\%ls\\%ls", folder, sub, name);
    return path;
}

static void beat(const wchar_t *path)
{
    char text[20];
    sprintf(text, "%010u\r\n", ++beats);
    put(path, text);
}

static void pulse(void)
{
    wchar_t name[260];
    swprintf(name, 260, L"%ls.alive", ticket);
    beat(path_of(L"tickets", name));
}

static int rename_ticket(const wchar_t *from, const wchar_t *to)
{
    wchar_t old[260], new[260];
    swprintf(old, 260, L"%ls.%ls", ticket, from);
    swprintf(new, 260, L"%ls.%ls", ticket, to);
    return MoveFileW(path_of(L"tickets", old), path_of(L"tickets", new));
}

static void record(int n, const wchar_t *state)
{
    wchar_t name[260];
    swprintf(name, 260, L"%ls.%d.%ls", ticket, n, state);
    put(path_of(L"journal", name), "by=worker\n");
}

static int field(const char *text, const char *key, char *value)
{
    const char *at = text;
    size_t length = strlen(key);
    while (at && *at) {
        if (!strncmp(at, key, length) && at[length] == '=') {
            sscanf(at + length + 1, "%79[^\r\n]", value);
            return 1;
        }
        at = strchr(at, '\n');
        at = at ? at + 1 : NULL;
    }
    return 0;
}

static int run(const char *service, const char *verb, int halfway)
{
    wchar_t key[100], line[2 * MAX_PATH], words[MAX_PATH];
    STARTUPINFOW startup = {.cb = sizeof startup};
    PROCESS_INFORMATION process;
    DWORD code = 1;
    swprintf(key, 100, L"DCSUP_COMMAND_%hs", service);
    GetEnvironmentVariableW(key, words, MAX_PATH);
    if (halfway)
        SetEnvironmentVariableW(L"HALFWAY", L"1");
    swprintf(line, 2 * MAX_PATH, L"cmd /d /s /c \"%ls %hs\"", words, verb);
    if (CreateProcessW(NULL, line, NULL, NULL, FALSE, 0, NULL, NULL, &startup, &process)) {
        while (WaitForSingleObject(process.hProcess, 100) == WAIT_TIMEOUT)
            pulse();
        GetExitCodeProcess(process.hProcess, &code);
    }
    return (int)code;
}

static int is(const wchar_t *word) { return !wcscmp(mode, word); }

static void die(void) { TerminateProcess(GetCurrentProcess(), 1); }

static int command(int n, const char *service, const char *verb, const wchar_t *from)
{
    wchar_t live[260], busy[80];
    HANDLE held;
    int code;
    swprintf(live, 260, L"%ls.%d.live", ticket, n);
    held = CreateFileW(path_of(L"journal", live), GENERIC_WRITE, FILE_SHARE_READ | FILE_SHARE_WRITE, NULL, CREATE_ALWAYS, 0, NULL);
    swprintf(busy, 80, L"busy-%d-%lu-1", n, GetCurrentProcessId());
    if (!rename_ticket(from, busy))
        exit(75);
    record(n, L"start");
    if (is(L"before"))
        die();
    if (is(L"hold"))
        Sleep(LIFE_MS);
    code = run(service, verb, is(L"during"));
    if (is(L"during") || is(L"after"))
        die();
    record(n, code ? L"fail" : L"ok");
    if (is(L"late"))
        die();
    rename_ticket(busy, L"worker");
    CloseHandle(held);
    DeleteFileW(path_of(L"journal", live));
    return code;
}

static int call(void)
{
    char text[8192], key[40], service[80], verb[80];
    const wchar_t *from = L"open";
    wchar_t name[260];
    int code = 0, stopping = wcsstr(ticket, L"-stop") != NULL;
    pulse();
    swprintf(name, 260, L"%ls.open", ticket);
    if (!get(path_of(L"tickets", name), text, sizeof text))
        return 75;
    for (int n = 1; (code == 0 || stopping) && n <= (once ? 1 : 99); n++) {
        sprintf(key, "%d.service", n);
        if (!field(text, key, service))
            break;
        sprintf(key, "%d.verb", n);
        field(text, key, verb);
        code = command(n, service, verb, from);
        from = L"worker";
    }
    return code && !stopping ? 40 : 0;
}

/* ends 40 when the file `end` is laid into the watch folder, and 75 within 2 s of its script's death */
static int watch(void)
{
    wchar_t name[200];
    char now[80], before[80] = "";
    int still = 0;
    for (int i = 0; i < LIFE_MS / 50; i++, Sleep(50)) {
        swprintf(name, 200, L"%ls.hook", service_name);
        beat(path_of(L"watch", name));
        get(parent_file, now, sizeof now);
        still = strcmp(now, before) ? 0 : still + 1;
        strcpy(before, now);
        if (still > 40)
            return 75;
        if (get(path_of(L"watch", L"end"), now, sizeof now)) {
            swprintf(name, 200, L"%ls.code", service_name);
            put(path_of(L"watch", name), now);
            return 40;
        }
    }
    return 75;
}

static void read_options(int count, wchar_t **words)
{
    for (int n = 3; n + 1 < count && wcscmp(words[n], L"--"); n += 2) {
        if (!wcscmp(words[n], L"--folder"))
            wcscpy(folder, words[n + 1]);
        if (!wcscmp(words[n], L"--ticket"))
            wcscpy(ticket, words[n + 1]);
        if (!wcscmp(words[n], L"--service"))
            wcscpy(service_name, words[n + 1]);
        if (!wcscmp(words[n], L"--parent-file"))
            wcscpy(parent_file, words[n + 1]);
    }
}

/* the launcher is this program again, with `launch` for `hook`; it is there when the ticket is busy */
static int split(const wchar_t *rest, wchar_t *line)
{
    wchar_t name[260];
    STARTUPINFOW startup = {.cb = sizeof startup};
    PROCESS_INFORMATION process;
    int hold = !wcsncmp(rest, L"hold-", 5);
    SetEnvironmentVariableW(L"MODE", hold ? L"hold" : L"working");
    memcpy(wcsstr(line, L" hook "), L" once ", 6 * sizeof *line);
    CreateProcessW(NULL, line, NULL, NULL, FALSE, 0, NULL, NULL, &startup, &process);
    swprintf(name, 260, L"%ls.open", ticket);
    while (GetFileAttributesW(path_of(L"tickets", name)) != INVALID_FILE_ATTRIBUTES)
        Sleep(5);
    return _wtoi(rest + (hold ? 5 : 0));
}

int wmain(int count, wchar_t **words)
{
    wchar_t line[60];
    read_options(count, words);
    if (!GetEnvironmentVariableW(L"MODE", mode, 40))
        wcscpy(mode, L"working");
    if (!wcscmp(words[1], L"once")) {
        once = 1;
        return call();
    }
    swprintf(line, 60, L"DCSUP|hook|%ls\n", words[2]);
    record_line(line, L"");
    if (is(L"crash"))
        TerminateProcess(GetCurrentProcess(), 0xC0000005);
    if (is(L"hang")) {
        char id[20];
        sprintf(id, "%lu", GetCurrentProcessId());
        put(path_of(L".", L"hanging"), id);
        Sleep(LIFE_MS);
    }
    if (!wcsncmp(mode, L"code-", 5))
        return _wtoi(mode + 5);
    if (!wcsncmp(mode, L"split-", 6))
        return split(mode + 6, GetCommandLineW());
    return wcscmp(words[2], L"watch") ? call() : watch();
}
