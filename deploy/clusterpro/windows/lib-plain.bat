@echo off
rem The guide's own sequence, from where the journal stands, and what start.bat and stop.bat have in common. Called as lib.bat is.
set "ds_go=%1"
shift
goto %ds_go%

rem :command N: sets ds_service, ds_verb, ds_key (the service's name in settings) and ds_kind
:command
call set "ds_service=%%ds_service_%1%%"
call set "ds_verb=%%ds_verb_%1%%"
set "ds_key=%ds_service:-=_%"
call set "ds_kind=%%DCSUP_KIND_%ds_key%%%"
if not defined ds_kind set "ds_kind=%ds_service%"
exit /b 0

rem :announce N: the INFO line before a command runs (G19), once
:announce
if defined ds_announced_%1 exit /b 0
set "ds_announced_%1=1"
call :command %1
if "%ds_script%"=="start" call "%ds_here%lib.bat" :cluster_log "%ds_service%" INFO MSG_STARTING
if "%ds_script%"=="stop" call "%ds_here%lib.bat" :cluster_log "%ds_service%" INFO MSG_STOPPING
exit /b 0

rem :run N: command N of the list, as the script's own; sets ds_code and ds_ran. ds_ran stays empty when the ticket was made void meanwhile.
rem   A cmd of its own claims it, runs it, writes its end and gives the ticket back, and so outlives a script that is killed. Its standard
rem   input is a file that it thereby holds open: a later script sees from it whether it lives (N6).
:run
call :announce %1
call :command %1
set "ds_n=%1"
if "%ds_kind%"=="command" if "%ds_verb%"=="start" call set ds_line=%%DCSUP_START_%ds_key%%%
if "%ds_kind%"=="command" if "%ds_verb%"=="stop" call set ds_line=%%DCSUP_STOP_%ds_key%%%
if not "%ds_kind%"=="command" call set ds_line=%%DCSUP_COMMAND_%ds_key%%% %ds_verb%
set "ds_input=nul"
if defined ds_ticket >"journal\%ds_ticket%.%1.live" echo.
if defined ds_ticket if exist "journal\%ds_ticket%.%1.live" set "ds_input=journal\%ds_ticket%.%1.live"
set "ds_ran=1"
"%ComSpec%" /d /c call "%ds_here%lib-plain.bat" :nested <"%ds_input%"
set "ds_code=%errorlevel%"
if not defined ds_ticket exit /b 0
if exist "journal\%ds_ticket%.%1.live" del /f /q "journal\%ds_ticket%.%1.live" >nul 2>&1
call "%ds_here%lib-tickets.bat" :state_of %ds_ticket%
if not "%ds_state%"=="void" if not "%ds_state%"=="done" exit /b 0
call "%ds_here%lib-tickets.bat" :journal_of %ds_ticket% %1
if not defined ds_entry set "ds_ran="
exit /b 0

:nested
if not defined ds_ticket goto :claimed
set "ds_looks=0"
:claim
ren "tickets\%ds_ticket%.script" "%ds_ticket%.script-%ds_n%" 2>nul
if exist "tickets\%ds_ticket%.script-%ds_n%" goto :claimed
if exist "tickets\%ds_ticket%.void" exit 1
if exist "tickets\%ds_ticket%.done" exit 1
call "%ds_here%lib.bat" :nap
if %ds_looks% lss 4 goto :claim
:claimed
if defined ds_tag set "ds_tag=%ds_tag%n%ds_n%"
set "ds_more="
if defined ds_ticket call "%ds_here%lib-tickets.bat" :record %ds_ticket% %ds_n% start %ds_service% %ds_verb% script
call :tell_command CommandStarted
"%ComSpec%" /d /s /c "%%ds_line%%"
set "ds_code=%errorlevel%"
set "ds_result=ok"
if not "%ds_code%"=="0" set "ds_result=fail"
set ds_more="code=%ds_code%" "ran=1" "reason="
if defined ds_ticket call "%ds_here%lib-tickets.bat" :record %ds_ticket% %ds_n% %ds_result% %ds_service% %ds_verb% script
set ds_more="result=%ds_result%" "ran=1" "code=%ds_code%"
call :tell_command CommandEnded
if defined ds_ticket ren "tickets\%ds_ticket%.script-%ds_n%" "%ds_ticket%.script" 2>nul
exit %ds_code%

rem :tell_command TYPE: a fact about command ds_n
:tell_command
set ds_more="ticket=%ds_ticket%" "n=%ds_n%" "service=%ds_service%" "verb=%ds_verb%" "by=script" %ds_more%
call "%ds_here%lib.bat" :tell %1
set "ds_more="
exit /b 0

rem :note_healthy N: dcstatus was 0 before the start: nothing to run, and the journal says so
:note_healthy
call :command %1
set "ds_n=%1"
set ds_more="code=0" "ran=0" "reason=already-healthy"
if defined ds_ticket call "%ds_here%lib-tickets.bat" :record %ds_ticket% %1 ok %ds_service% %ds_verb% script
set "ds_more="
call :tell_command CommandStarted
set ds_more="result=ok" "ran=0" "code=0" "reason=already-healthy"
call :tell_command CommandEnded
exit /b 0

rem :list: the call's commands in execution order: a start in the order of DCSUP_SERVICES (G23), a stop in reverse
:list
set "ds_order=%DCSUP_SERVICES%"
if "%ds_script%"=="stop" set "ds_order="
if "%ds_script%"=="stop" for %%s in (%DCSUP_SERVICES%) do call set "ds_order=%%s %%ds_order%%"
for %%s in (%ds_order%) do call :add %%s
exit /b 0
:add
set /a ds_commands+=1
set "ds_service_%ds_commands%=%1"
set "ds_announced_%ds_commands%="
set "ds_verb_%ds_commands%=%ds_script%"
call :command %ds_commands%
call :choose
set "ds_verb_%ds_commands%=%ds_verb%"
exit /b 0

rem the verb for ds_script and CLP_EVENT (G8-G15); a site may set another that the guide allows; kind command knows start and stop only
:choose
if "%ds_kind%"=="command" exit /b 0
if "%ds_script%"=="start" set "ds_verb=recover"
if "%ds_script%"=="stop" set "ds_verb=faststop"
if "%ds_kind%"=="agent" if "%CLP_EVENT%"=="START" set "ds_verb=%ds_script%"
set "ds_choice="
call set "ds_choice=%%DCSUP_VERB_%ds_key%_%ds_script%_%CLP_EVENT%%%"
for %%v in (start.start start.recover stop.stop stop.faststop) do if "%ds_script%.%ds_choice%"=="%%v" set "ds_verb=%ds_choice%"
exit /b 0

rem :ask_dcsup DEADLINE: sets ds_hook_code; anything but 0 and 40 means that the plain sequence must go on
:ask_dcsup
set "ds_hook_code=75"
call "%ds_here%lib-tickets.bat" :make_ticket
set "ds_reason=no-ticket"
if not defined ds_ticket exit /b 0
set "ds_reason=bypass"
if exist dcsup.bypass exit /b 0
for /l %%n in (1,1,%ds_commands%) do call :announce %%n
set "ds_sign=tickets\%ds_ticket%.pulse"
set "ds_watched=tickets\%ds_ticket%.alive"
set ds_line=%DCSUP% hook %ds_script% --folder "%DCSUP_FOLDER%" --ticket %ds_ticket% --parent-file "%DCSUP_FOLDER%\%ds_sign%"
set ds_line=%ds_line% --ack-timeout %DCSUP_ACK_TIMEOUT% --limit %1 --command-limit %DCSUP_COMMAND_LIMIT% --poll-limit %DCSUP_POLL_LIMIT%
>"%ds_sign%" echo 0
set /a ds_hook_limit=%1+5
call "%ds_here%lib.bat" :bounded %ds_hook_limit%
set "ds_watched="
set "ds_sign="
if not defined ds_ended if defined ds_tag type "%ds_end%.out" 2>nul
set "ds_hook_code=%ds_code%"
set "ds_reason=hook-%ds_code%"
if defined ds_ended set "ds_reason=hook-%ds_ended%"
exit /b 0

rem :fall_back: takes the ticket. Sets ds_taken; empty when a later script took the ground from under this one.
:fall_back
set ds_more="ticket=%ds_ticket%" "reason=%ds_reason%"
call "%ds_here%lib.bat" :tell FallbackTaken
set "ds_word=%ds_reason%"
call "%ds_here%lib.bat" :text MSG_FALLBACK
echo %ds_text%
call "%ds_here%lib-tickets.bat" :take
exit /b 0
