@echo off
rem What start.bat, stop.bat and watch.bat share: settings, bounded calls, what goes to the cluster and to the outbox.
rem   call "%ds_here%lib.bat" :label arguments. Explanations stand at the file's end: cmd looks for a label from the file's beginning.
set "ds_go=%1"
shift
goto %ds_go%

rem :bounded LIMIT: runs the command in ds_line in the background (0: no limit); its output goes to %ds_end%.out.
rem   Sets ds_code, empty when it gave none, and ds_ended: limit, silent, or empty.
:bounded
if not defined ds_tag goto :unbounded
set /a ds_calls+=1
set "ds_end=run\%ds_tag%\%ds_calls%"
>"%ds_end%.under-way" echo.
if not exist "%ds_end%.under-way" goto :unbounded
start "" /b "%ComSpec%" /d /c call "%ds_here%lib.bat" :aside <nul >"%ds_end%.out" 2>&1

rem :wait_for LIMIT: the same for a call that is under way already (%ds_end%)
:wait_for
set "ds_code="
set "ds_ended="
set "ds_seen="
set /a ds_waited=0, ds_silent=0, ds_looks=0
:look
if exist "%ds_end%.ended.*" goto :has_ended
call :nap
if %ds_looks% leq %ds_quick% goto :look
set /a ds_waited+=1
if defined ds_watched call :look_for_life
if defined ds_ended exit /b 1
if %1 equ 0 goto :look
if %ds_waited% lss %1 goto :look
set "ds_ended=limit"
exit /b 1
:has_ended
for %%f in (%ds_end%.ended.*) do set "ds_code=%%~xf"
set "ds_code=%ds_code:~1%"
exit /b 0

rem without a file in which its end could be seen it is run as the guide runs it: waited for, however long it takes
:unbounded
set "ds_ended="
"%ComSpec%" /d /s /c "%%ds_line%%" <nul
set "ds_code=%errorlevel%"
exit /b 0

rem the background's part: an end is one rename, which needs no room on the disk
:aside
"%ComSpec%" /d /s /c "%%ds_line%%"
ren "%ds_end%.under-way" "%ds_calls%.ended.%errorlevel%"
exit

:look_for_life
set "ds_life="
if exist "%ds_watched%" <"%ds_watched%" set /p ds_life=
set /a ds_silent+=1
if not "%ds_life%"=="%ds_seen%" set "ds_silent=0"
set "ds_seen=%ds_life%"
if %ds_silent% geq %DCSUP_HOOK_SILENCE% set "ds_ended=silent"
exit /b

rem :nap: the first looks follow each other as fast as a process starts, the others a second apart. ds_looks counts them.
:nap
set /a ds_looks+=1
if %ds_looks% gtr %ds_quick% goto :second
"%ComSpec%" /d /c exit
exit /b
:second
if defined ds_sign >"%ds_sign%" echo %ds_age%
set "ds_seconds=1"
goto :pass

rem :pause SECONDS: what the guide does between polls
:pause
set "ds_seconds=%1"
:pass
set /a ds_age+=ds_seconds
if not defined ds_armsleep goto :ping
"%ds_armsleep%" %ds_seconds% >nul 2>&1
if %errorlevel% equ 0 exit /b 0
:ping
set /a ds_pings=ds_seconds+1
ping -n %ds_pings% 127.0.0.1 >nul 2>&1
exit /b 0

rem :ask_status SERVICE: sets ds_code to what its dcstatus ended with; empty: it did not answer in time (unknown)
:ask_status
set "ds_key=%~1"
set "ds_key=%ds_key:-=_%"
call set ds_line=%%DCSUP_STATUS_%ds_key%%%
set "ds_watched="
set "ds_asked="
call set "ds_asked=%%ds_asked_%ds_key%%%"
if defined ds_asked goto :ask_again
call :bounded %DCSUP_POLL_LIMIT%
goto :answered
:ask_again
set "ds_end=%ds_asked%"
call :wait_for %DCSUP_POLL_LIMIT%
:answered
set "ds_asked_%ds_key%="
if not defined ds_ended exit /b 0
set "ds_asked_%ds_key%=%ds_end%"
call :check_disk
exit /b 0

rem an answer that could not be left behind would look like none: then the disk is not used any more
:check_disk
>"run\%ds_tag%\probe" echo.
ren "run\%ds_tag%\probe" probed 2>nul
if not exist "run\%ds_tag%\probed" goto :no_disk
del /q "run\%ds_tag%\probed" >nul 2>&1
exit /b 0
:no_disk
set "ds_tag="
set "ds_asked_%ds_key%="
call :unbounded
exit /b 0

rem :tell TYPE: a fact for the outbox, with the "key=value" words in ds_more; without a disk it is lost, and the script goes on
:tell
call :begin_fact %1
call :end_fact
exit /b 0

:begin_fact
set /a ds_told+=1
set "ds_fact=00000%ds_told%"
set "ds_fact=line-%ds_tag%-%ds_fact:~-6%"
set "ds_aside=outbox\.tmp-%ds_fact%"
if not defined ds_tag set "ds_aside=nul"
>"%ds_aside%" echo type=%1
>>"%ds_aside%" echo source=script
>>"%ds_aside%" echo boot=%ds_boot%
for %%w in (%ds_more%) do >>"%ds_aside%" echo %%~w
exit /b 0

:end_fact
if defined ds_tag ren "%ds_aside%" "%ds_fact%.line" 2>nul
exit /b 0

rem :decline REASON: tells that the script rightly runs nothing. What CLUSTERPRO says may hold anything: only quotes keep it together.
:decline
set ds_more="script=%ds_script%" "reason=%1"
call :begin_fact ScriptDeclined
if not defined ds_tag exit /b 0
>>"%ds_aside%" set /p "=event=%CLP_EVENT%" <nul
>>"%ds_aside%" echo.
>>"%ds_aside%" set /p "=disk=%CLP_DISK%" <nul
>>"%ds_aside%" echo.
call :end_fact
exit /b 0

rem :text MESSAGE: sets ds_text to the message with ds_word in it
:text
call set "ds_text=%%%1:{}=%ds_word%%%"
exit /b 0

rem :cluster_log SERVICE LEVEL MESSAGE: one line in the cluster log (G19)
:cluster_log
set "ds_key=%~1"
set "ds_key=%ds_key:-=_%"
call set "ds_kind=%%DCSUP_KIND_%ds_key%%%"
if not defined ds_kind set "ds_kind=%~1"
call set "ds_id=%%DCSUP_LOG_ID_%ds_key%%%"
set "ds_word=DataCoordinator %~1"
if "%ds_kind%"=="command" set "ds_word=%~1"
if not defined ds_id if "%ds_kind%"=="agent" set "ds_id=2"
if not defined ds_id if "%ds_kind%"=="command" set "ds_id=3"
if not defined ds_id set "ds_id=1"
call :text %3
"%ds_clp%CLPLOGCMD" -m "%ds_text%" -i %ds_id% -l %2
exit /b 0

:broadcast
call set "ds_text=%%%1%%"
"%ds_clp%ARMBCAST" /MSG "%ds_text%" /A
exit /b 0

rem :site PLACE: the site's own code (G43), on the highest-priority node or another (G21)
:site
set "ds_branch=home"
if "%CLP_SERVER%"=="OTHER" set "ds_branch=other"
set "ds_site="
if exist "%ds_here%site\%1.bat" set "ds_site=%1.bat"
if exist "%ds_here%site\%1-%ds_branch%.bat" set "ds_site=%1-%ds_branch%.bat"
if not defined ds_site exit /b 0
set ds_line="%ds_here%site\%ds_site%"
set "ds_watched="
call :bounded %DCSUP_SITE_LIMIT%
if not defined ds_ended if defined ds_tag type "%ds_end%.out" 2>nul
if "%ds_code%"=="0" exit /b 0
set "ds_word=%ds_site%"
call :text MSG_SITE_FAILED
"%ds_clp%CLPLOGCMD" -m "%ds_text%" -i 1 -l ERR
exit /b 0

rem :begin: settings, folders, this call's tag, the boot's id; the current directory becomes the node folder. 1: no settings.
:begin
if not exist "%ds_here%dcsup-env.bat" goto :unconfigured
call "%ds_here%dcsup-env.bat"
if not defined DCSUP set "DCSUP=dcsup"
if not defined DCSUP_ACK_TIMEOUT set "DCSUP_ACK_TIMEOUT=4"
if not defined DCSUP_LANG set "DCSUP_LANG=en"
for %%w in ("START_DEADLINE 600" "STOP_DEADLINE 600" "COMMAND_LIMIT 300" "INTERVAL 10" "POLL_LIMIT 30") do call :whole %%~w
for %%w in ("CONFIRM 1" "HOOK_SILENCE 5" "SITE_LIMIT 60" "BOOT_LIMIT 5") do call :whole %%~w
if defined CLP_EVENT set "CLP_EVENT=%CLP_EVENT:"=%"
if defined CLP_DISK set "CLP_DISK=%CLP_DISK:"=%"
if defined CLP_SERVER set "CLP_SERVER=%CLP_SERVER:"=%"
if defined CLP_FACTOR set "CLP_FACTOR=%CLP_FACTOR:"=%"
if defined CLP_SERVER_PREV set "CLP_SERVER_PREV=%CLP_SERVER_PREV:"=%"
if not exist "%ds_here%messages.%DCSUP_LANG%.bat" set "DCSUP_LANG=en"
call "%ds_here%messages.%DCSUP_LANG%.bat"
for %%v in (ds_tag ds_boot ds_blind ds_stuck ds_sign ds_watched ds_ticket ds_more ds_armsleep ds_clp) do set "%%v="
set /a ds_age=0, ds_told=0, ds_calls=0, ds_commands=0
set "ds_quick=5"
if defined CLP_BIN set "ds_clp=%CLP_BIN%\"
if defined CLP_BIN if exist "%CLP_BIN%\ARMSLEEP.exe" set "ds_armsleep=%CLP_BIN%\ARMSLEEP.exe"
if not defined CLP_BIN for %%x in (ARMSLEEP.exe) do set "ds_armsleep=%%~$PATH:x"
if not exist "%DCSUP_FOLDER%\" md "%DCSUP_FOLDER%" 2>nul
cd /d "%DCSUP_FOLDER%"
for %%d in (tickets journal outbox run watch) do if not exist "%DCSUP_FOLDER%\%%d\" md "%DCSUP_FOLDER%\%%d" 2>nul
if exist "%DCSUP_FOLDER%\run\" call :find_tag
call :find_boot
exit /b 0
:unconfigured
echo dcsup: %ds_here%dcsup-env.bat cannot be read
exit /b 1

rem :whole NAME DEFAULT: a setting that is a whole number, or its default; a leading 0 would make it octal
:whole
call set "ds_value=%%DCSUP_%1%%"
set "ds_digits="
for /f "delims=0123456789" %%x in ("%ds_value%") do set "ds_value="
if defined ds_value for /f "tokens=* delims=0" %%x in ("%ds_value%") do set "ds_digits=%%x"
if defined ds_value if not defined ds_digits set "ds_digits=0"
if not defined ds_value set "ds_digits=%2"
set "DCSUP_%1=%ds_digits%"
exit /b 0

rem :find_tag: a number that no script of this node has: making its folder decides. The folder stays behind as a mark, for 200 calls.
:find_tag
set "ds_seq=0"
if exist run\seq <run\seq set /p ds_seq=
for /f "delims=0123456789" %%x in ("%ds_seq%") do set "ds_seq=0"
set "ds_tries=0"
:next_tag
set /a ds_seq+=1, ds_tries+=1
if %ds_tries% gtr 1000 exit /b 0
if exist "run\%ds_seq%\" goto :next_tag
if exist "tickets\*-%ds_seq%-st*" goto :next_tag
rem a command of cmd's own that succeeds need not say so: only a routine's end does
call :succeed
md "run\%ds_seq%" 2>nul
if errorlevel 1 goto :next_tag
if not exist "run\%ds_seq%\" exit /b 0
set "ds_tag=%ds_seq%"
>run\seq echo %ds_seq%
set /a ds_old=ds_seq-200
if exist "run\%ds_old%\" rd /s /q "run\%ds_old%" 2>nul
exit /b 0

:succeed
exit /b 0

rem :find_boot: sets ds_boot to this boot's id, letters and digits, the same that the worker finds; empty: unknown
:find_boot
if defined DCSUP_BOOT_FILE goto :boot_of_file
if defined DCSUP_BOOT_COMMAND goto :boot_of_command
set "ds_key=HKLM\SYSTEM\CurrentControlSet\Control\Session Manager\Memory Management\PrefetchParameters"
for /f "tokens=3" %%b in ('reg query "%ds_key%" /v BootId 2^>nul') do set "ds_boot=%%b"
if defined ds_boot set /a ds_boot=ds_boot
exit /b 0
:boot_of_file
if exist "%DCSUP_BOOT_FILE%" <"%DCSUP_BOOT_FILE%" set /p ds_boot=
goto :bare_boot
:boot_of_command
set ds_line=%DCSUP_BOOT_COMMAND%
call :bounded %DCSUP_BOOT_LIMIT%
if defined ds_tag if "%ds_code%"=="0" <"%ds_end%.out" set /p ds_boot=
:bare_boot
if not defined ds_boot exit /b 0
set "ds_boot=%ds_boot:-=%"
set "ds_boot=%ds_boot: =%"
set "ds_boot=%ds_boot:{=%"
set "ds_boot=%ds_boot:}=%"
set "ds_boot=%ds_boot:.=%"
set "ds_boot=%ds_boot::=%"
for /f "delims=0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" %%x in ("%ds_boot%") do set "ds_boot="
exit /b 0

rem ---- Settings, in dcsup-env.bat beside this file ----------------------------------------------------------------------------
rem   The variables are those at the head of deploy/clusterpro/linux/lib.sh. A command is one quoted path, with words behind it where there
rem   are any; all durations are whole seconds. No value holds a quote, a percent sign, an exclamation mark or a caret: batch has no way of
rem   writing them that is right in every place (`dcsup render` refuses them). DCSUP_BOOT_FILE, DCSUP_BOOT_COMMAND: the first line counts,
rem   its letters and digits; without them, Windows' own count of its boots. DCSUP_LANG: en or ja, the messages.*.bat in use.
rem
rem ---- The site's own code (G43) ------------------------------------------------------------------------------------------------
rem   site\<place>-home.bat or site\<place>-other.bat (G21), else site\<place>.bat; places as in lib.sh. After DCSUP_SITE_LIMIT seconds the
rem   script goes on without it; it cannot be ended, for batch does not know its process. The current directory is the node folder.
rem
rem ---- How a call is bounded ----------------------------------------------------------------------------------------------------
rem   cmd cannot wait for a process for a limited time, and does not know the ids of those that it starts. So what may hang runs in the
rem   background, in a cmd of its own that renames a file when it has ended, to a name with the exit code in it. The script looks for that
rem   name: a few times at once, then in steps of a second, made by ARMSLEEP or, without it, by ping. Time is counted in these steps:
rem   batch has no clock that is the same in every language of Windows. What outlives its limit is left alone: the ticket's name
rem   keeps a late hook from doing harm, and a dcstatus that hangs is not started a second time but waited for again.
rem   In a folder that takes no files nothing is bounded: every command is then waited for, as the guide does.
rem
rem ---- Who lives ------------------------------------------------------------------------------------------------------------------
rem   A process id says nothing on Windows: ids are used again at once. So whoever runs a command (dcsup's launcher; the nested cmd of
rem   lib-plain.bat, as its standard input) holds journal\T.N.live open for as long as it runs. A file that is open in this way cannot be
rem   removed: if it can, the process is gone. It is held before the ticket is claimed, so a busy name without it is a dead one. Only while
rem   it is held is the id in the busy name sure, and only then is it ended. What the launcher started ends with it (a job object).
rem   The script's own sign of life for its hook is a counter in a file, T.pulse or <service>.pulse, written each second: cmd does not know
rem   its own id either. A hook whose script's counter stands still for 2 s ends.
