@echo off
rem Tickets and journal, the script's part (N1, N2, N5-N8). Called by start.bat, stop.bat and lib-plain.bat as lib.bat is.
set "ds_go=%1"
shift
goto %ds_go%

rem :state_of TICKET: sets ds_state to open, worker, busy-N-PID-BORN, script, script-N, done or void; empty: it is not there.
rem   A folder that is read while a name in it changes may show neither name, so an absence is looked at three times.
:state_of
set "ds_state="
for %%i in (1 2 3) do if not defined ds_state call :find_state %1
exit /b 0
:find_state
for %%s in (open worker script done void) do if exist "tickets\%~1.%%s" set "ds_state=%%s"
for %%f in (tickets\%~1.busy-* tickets\%~1.script-*) do set "ds_state=%%~xf"
if defined ds_state if "%ds_state:~0,1%"=="." set "ds_state=%ds_state:~1%"
exit /b 0

rem :journal_of TICKET N: sets ds_entry to ok, fail, lost or start; empty: nothing is recorded
:journal_of
set "ds_entry="
for %%e in (start lost fail ok) do if exist "journal\%1.%2.%%e" set "ds_entry=%%e"
exit /b 0

rem :record TICKET N ENTRY SERVICE VERB BY: into the journal, with the "key=value" words in ds_more
:record
if not defined ds_tag exit /b 0
set "ds_aside=journal\.tmp-%ds_tag%-%1.%2.%3"
>"%ds_aside%" echo ticket=%1
set ds_more="n=%2" "service=%4" "verb=%5" "by=%6" "pid=" "born=" "boot=%ds_boot%" "mono=" "wall=" %ds_more%
for %%w in (%ds_more%) do >>"%ds_aside%" echo %%~w
ren "%ds_aside%" "%1.%2.%3" 2>nul
if exist "%ds_aside%" del /q "%ds_aside%" >nul 2>&1
exit /b 0

rem :held TICKET N: sets ds_held if the command's process lives: it holds this file open, so that it cannot be removed
:held
set "ds_held="
if not exist "journal\%1.%2.live" exit /b 0
del /f /q "journal\%1.%2.live" >nul 2>&1
if exist "journal\%1.%2.live" set "ds_held=1"
exit /b 0

rem :split_busy STATE: sets ds_busy_n and ds_busy_pid
:split_busy
for /f "tokens=2,3 delims=-" %%a in ("%1") do set "ds_busy_n=%%a"
for /f "tokens=2,3 delims=-" %%a in ("%1") do set "ds_busy_pid=%%b"
exit /b 0

rem :take: this call's ticket from open or worker to script (N2); while a command is under way it is waited for, within its limit, then
rem   ended. Sets ds_taken; empty when a later script made the ticket void: then nothing may be run for it any more.
rem   A disk that refuses every rename refuses the worker's too: then the script goes on without its ticket, as the guide would, and gives
rem   no sign of life any more, so that nobody claims a command when the disk takes renames again (N7). Before each command it tries again.
:take
set "ds_taken=1"
if not defined ds_ticket exit /b 0
if defined ds_stuck exit /b 0
set "ds_sign="
set "ds_busy="
set /a ds_refused=0, ds_looks=0
if defined ds_blind set "ds_refused=20"
set "ds_blind="
:take_look
call :state_of %ds_ticket%
if not defined ds_state set "ds_blind=1"
if not defined ds_state exit /b 0
if "%ds_state%"=="void" goto :not_taken
if "%ds_state%"=="done" goto :not_taken
if "%ds_state:~0,6%"=="script" goto :taken
if "%ds_state:~0,5%"=="busy-" goto :take_busy
:take_now
ren "tickets\%ds_ticket%.%ds_state%" "%ds_ticket%.script" 2>nul
if exist "tickets\%ds_ticket%.script" goto :taken
if not exist "tickets\%ds_ticket%.%ds_state%" goto :take_look
set /a ds_refused+=1
if %ds_refused% gtr 20 set "ds_blind=1"
if defined ds_blind exit /b 0
call "%ds_here%lib.bat" :nap
goto :take_look
:take_busy
call :split_busy %ds_state%
if not "%ds_state%"=="%ds_busy%" set /a ds_busy_until=ds_age+DCSUP_COMMAND_LIMIT+2
set "ds_busy=%ds_state%"
call :held %ds_ticket% %ds_busy_n%
if not defined ds_held goto :take_gone
if %ds_age% geq %ds_busy_until% goto :take_by_force
call "%ds_here%lib.bat" :nap
goto :take_look
:take_by_force
call :end_process %ds_ticket% %ds_busy_n% %ds_busy_pid%
if not defined ds_held goto :take_look
rem a process that hangs in the kernel: beside it nothing is started, and what can be stopped is stopped
set "ds_stuck=1"
if "%ds_script%"=="start" set "ds_taken="
exit /b 0
:take_gone
if not exist "tickets\%ds_ticket%.%ds_state%" goto :take_look
call :record_lost %ds_ticket% %ds_busy_n% worker %ds_state%
goto :take_now
:taken
set "ds_sign=tickets\%ds_ticket%.alive"
exit /b 0
:not_taken
set "ds_taken="
exit /b 0

rem :record_lost TICKET N BY STATE: its process is gone; unless its end is on record, nobody will ever know it
:record_lost
call :journal_of %1 %2
if defined ds_entry if not "%ds_entry%"=="start" exit /b 0
set "ds_lost_service="
set "ds_lost_verb="
if exist "tickets\%1.%4" for /f "usebackq tokens=1* delims==" %%a in ("tickets\%1.%4") do (
    if "%%a"=="%2.service" set "ds_lost_service=%%b"
    if "%%a"=="%2.verb" set "ds_lost_verb=%%b"
)
set ds_more="reason=process gone"
call :record %1 %2 lost "%ds_lost_service%" "%ds_lost_verb%" %3
set ds_more="ticket=%1" "n=%2" "service=%ds_lost_service%" "verb=%ds_lost_verb%" "by=%3" "result=lost" "reason=process gone"
call "%ds_here%lib.bat" :tell CommandEnded
exit /b 0

rem :end_process TICKET N PID: ends it, and sees it gone. Its id is sure only while it holds its file, and only where a file can be removed
rem   at all; ids are used again, and a stranger is never touched. ds_held stays set when it is still there after 30 s.
:end_process
set /a ds_end_until=ds_age+30, ds_looks=0
:end_look
call :held %1 %2
if not defined ds_held exit /b 0
>"journal\.tmp-%ds_tag%-probe" echo.
if not exist "journal\.tmp-%ds_tag%-probe" exit /b 0
del /q "journal\.tmp-%ds_tag%-probe" >nul 2>&1
if exist "journal\.tmp-%ds_tag%-probe" exit /b 0
taskkill /F /PID %3 >nul 2>&1
call "%ds_here%lib.bat" :nap
if %ds_age% lss %ds_end_until% goto :end_look
call :held %1 %2
exit /b 0

rem :clear_ground (N6): every other ticket of the group becomes void, and what still runs for one is ended or waited for. Rounds, because a
rem   worker may claim between our look and our rename; a disk that refuses renames refuses the worker's too: one round is enough then.
:clear_ground
set "ds_refused="
set "ds_rounds=0"
:clear_round
set "ds_found="
set /a ds_rounds+=1
set "ds_ours=tickets\*-%DCSUP_GROUP%-*"
for %%f in (%ds_ours%.open %ds_ours%.worker %ds_ours%.busy-* %ds_ours%.script %ds_ours%.script-*) do call :void "%%~nf" "%%~xf"
if defined ds_refused exit /b 0
if defined ds_found if %ds_rounds% lss 10 goto :clear_round
exit /b 0

rem :void TICKET .STATE, of whatever group a name like ours may be
:void
set "ds_other=%~1"
set "ds_other_state=%~2"
set "ds_other_state=%ds_other_state:~1%"
for /f "delims=-" %%b in ("%ds_other%") do set "ds_other_boot=%%b"
call set "ds_rest=%%ds_other:*-%DCSUP_GROUP%-=%%"
if not "%ds_other%"=="%ds_other_boot%-%DCSUP_GROUP%-%ds_rest%" exit /b 0
for /f "tokens=1,2* delims=-" %%a in ("%ds_rest%") do set "ds_rest=%%c"
if defined ds_rest exit /b 0
set "ds_found=1"
if "%ds_other_state:~0,5%"=="busy-" call :end_busy
if "%ds_other_state:~0,7%"=="script-" call :wait_for_mark
ren "tickets\%ds_other%.%ds_other_state%" "%ds_other%.void" 2>nul
if exist "tickets\%ds_other%.void" del /q "tickets\%ds_other%.alive" "tickets\%ds_other%.pulse" >nul 2>&1
if exist "tickets\%ds_other%.%ds_other_state%" set "ds_refused=1"
exit /b 0

rem the process behind a busy name is ended and seen gone, then its end is written (N3); of another boot it is gone (N4)
:end_busy
call :split_busy %ds_other_state%
if defined ds_boot if not "%ds_other_boot%"=="%ds_boot%" goto :busy_ended
call :end_process %ds_other% %ds_busy_n% %ds_busy_pid%
:busy_ended
call :record_lost %ds_other% %ds_busy_n% worker %ds_other_state%
exit /b 0

rem an older script's own command, which outlived its script: waited for within its limit. Its process is not known here: past the limit
rem the script goes on beside it, as the guide would.
:wait_for_mark
set "ds_mark=%ds_other_state:~7%"
set /a ds_mark_until=ds_age+DCSUP_COMMAND_LIMIT+2, ds_looks=0
:mark_look
if not exist "tickets\%ds_other%.%ds_other_state%" exit /b 0
if defined ds_boot if not "%ds_other_boot%"=="%ds_boot%" goto :mark_gone
call :held %ds_other% %ds_mark%
if not defined ds_held goto :mark_gone
if %ds_age% geq %ds_mark_until% goto :mark_gone
call "%ds_here%lib.bat" :nap
goto :mark_look
:mark_gone
if exist "tickets\%ds_other%.%ds_other_state%" call :record_lost %ds_other% %ds_mark% script %ds_other_state%
exit /b 0

rem :make_ticket (N1): before the hook is called. Sets ds_ticket; empty when the disk refuses, or nobody knows which boot this is.
:make_ticket
set "ds_ticket="
if not defined ds_tag exit /b 0
if not defined ds_boot exit /b 0
set "ds_name=%ds_boot%-%DCSUP_GROUP%-%ds_tag%-%ds_script%"
set "ds_aside=tickets\.tmp-%ds_name%"
set ds_more="ticket=%ds_name%" "boot=%ds_boot%" "group=%DCSUP_GROUP%" "script=%ds_script%" "pid=" "commands=%ds_commands%"
for %%w in (%ds_more%) do >>"%ds_aside%" echo %%~w
for /l %%n in (1,1,%ds_commands%) do call :list_command %%n
if not exist "%ds_aside%" exit /b 0
>>"%ds_aside%" set /p "=event=%CLP_EVENT%" <nul
>>"%ds_aside%" echo.
>>"%ds_aside%" set /p "=disk=%CLP_DISK%" <nul
>>"%ds_aside%" echo.
>>"%ds_aside%" set /p "=server=%CLP_SERVER%" <nul
>>"%ds_aside%" echo.
>>"%ds_aside%" set /p "=factor=%CLP_FACTOR%" <nul
>>"%ds_aside%" echo.
>>"%ds_aside%" set /p "=previous=%CLP_SERVER_PREV%" <nul
>>"%ds_aside%" echo.
>"tickets\%ds_name%.alive" echo 0000000000
ren "%ds_aside%" "%ds_name%.open" 2>nul
if exist "tickets\%ds_name%.open" set "ds_ticket=%ds_name%"
exit /b 0
:list_command
call set "ds_word=%1.service=%%ds_service_%1%%"
>>"%ds_aside%" echo %ds_word%
call set "ds_word=%1.verb=%%ds_verb_%1%%"
>>"%ds_aside%" echo %ds_word%
exit /b 0

rem :close CODE (N8): before the script returns, whatever it returns; what is still under way for the ticket is ended first
:close
set "ds_sign="
set "ds_rounds=0"
if not defined ds_ticket goto :closed
:close_round
set /a ds_rounds+=1
if %ds_rounds% gtr 5 goto :closed
call :state_of %ds_ticket%
if not defined ds_state goto :closed
if "%ds_state%"=="done" goto :closed
if "%ds_state%"=="void" goto :closed
set "ds_other=%ds_ticket%"
set "ds_other_boot=%ds_boot%"
set "ds_other_state=%ds_state%"
if "%ds_state:~0,5%"=="busy-" call :end_busy
ren "tickets\%ds_ticket%.%ds_other_state%" "%ds_ticket%.done" 2>nul
if not exist "tickets\%ds_ticket%.done" goto :close_round
:closed
if defined ds_ticket del /q "tickets\%ds_ticket%.alive" "tickets\%ds_ticket%.pulse" >nul 2>&1
set ds_more="ticket=%ds_ticket%" "script=%ds_script%" "code=%1"
call "%ds_here%lib.bat" :tell ScriptEnded
exit /b 0
