@echo off
rem What the guide's start.bat, stop.bat and watch.bat share: call "%gd_here%lib-guide.bat" :label arguments.
rem
rem The guide's plain sequence (G8-G24, G43 in the project's documentation) and nothing else: no dcsup, no ticket, no time limit. These
rem scripts are for going back. What they do not do either, as the guide's own samples do not: end with anything but 0 when a command
rem failed, wait for a bounded time only, see to it that the agent runs before the server is started. One fault of the samples is not
rem repeated: they double the quotes round the install path, and a path with a space is never run.
rem
rem Settings: dcsup-env.bat beside this file. Used of it: DCSUP_SERVICES, DCSUP_KIND_S, DCSUP_COMMAND_S, DCSUP_START_S, DCSUP_STOP_S,
rem DCSUP_STATUS_S, DCSUP_WAIT_S, DCSUP_LOG_ID_S, DCSUP_VERB_S_..., DCSUP_INTERVAL, CLP_BIN, DCSUP_LANG. The site's own code is in site\.
set "gd_go=%1"
shift
goto %gd_go%

:begin
call "%gd_here%dcsup-env.bat"
if not defined DCSUP_LANG set "DCSUP_LANG=en"
call "%gd_here%messages.%DCSUP_LANG%.bat"
set "gd_clp="
if defined CLP_BIN set "gd_clp=%CLP_BIN%\"
if not defined DCSUP_INTERVAL set "DCSUP_INTERVAL=10"
exit /b 0

rem :pause SECONDS; without ARMSLEEP a loop would not pause at all
:pause
"%gd_clp%ARMSLEEP" %1
if %errorlevel% equ 0 exit /b 0
set /a gd_pings=%1+1
ping -n %gd_pings% 127.0.0.1 >nul
exit /b 0

:broadcast
call set "gd_text=%%%1%%"
"%gd_clp%ARMBCAST" /MSG "%gd_text%" /A
exit /b 0

rem :choose SERVICE: sets gd_kind, gd_verb (G8-G15, or the site's own choice), gd_wait (G20), gd_id (G19) and gd_name
:choose
set "gd_key=%~1"
set "gd_key=%gd_key:-=_%"
call set "gd_kind=%%DCSUP_KIND_%gd_key%%%"
if not defined gd_kind set "gd_kind=%~1"
goto :%gd_kind%
:server
set "gd_name=DataCoordinator %~1"
set /a gd_wait=20, gd_id=1
set "gd_verb=recover"
if "%gd_script%"=="stop" set "gd_verb=faststop"
goto :chosen
:agent
set "gd_name=DataCoordinator %~1"
set /a gd_wait=10, gd_id=2
set "gd_verb=recover"
if "%gd_script%"=="stop" set "gd_verb=faststop"
if "%CLP_EVENT%"=="START" set "gd_verb=%gd_script%"
goto :chosen
:command
set "gd_name=%~1"
set /a gd_wait=10, gd_id=3
set "gd_verb=%gd_script%"
:chosen
if defined DCSUP_VERB_%gd_key%_%gd_script%_%CLP_EVENT% call set "gd_verb=%%DCSUP_VERB_%gd_key%_%gd_script%_%CLP_EVENT%%%"
if defined DCSUP_WAIT_%gd_key% call set "gd_wait=%%DCSUP_WAIT_%gd_key%%%"
if defined DCSUP_LOG_ID_%gd_key% call set "gd_id=%%DCSUP_LOG_ID_%gd_key%%%"
exit /b 0

rem :run: the command for gd_verb, with an INFO line before it and an ERR line if it fails (G19); sets gd_code
:run
if "%gd_script%"=="start" call :log INFO MSG_STARTING
if "%gd_script%"=="stop" call :log INFO MSG_STOPPING
call set gd_line=%%DCSUP_COMMAND_%gd_key%%% %gd_verb%
if "%gd_kind%.%gd_verb%"=="command.start" call set gd_line=%%DCSUP_START_%gd_key%%%
if "%gd_kind%.%gd_verb%"=="command.stop" call set gd_line=%%DCSUP_STOP_%gd_key%%%
"%ComSpec%" /d /s /c "%%gd_line%%"
set "gd_code=%errorlevel%"
if "%gd_code%"=="0" exit /b 0
if "%gd_script%"=="start" call :log ERR MSG_START_FAILED
if "%gd_script%"=="stop" call :log ERR MSG_STOP_FAILED
exit /b 0

rem :log LEVEL MESSAGE
:log
call set "gd_text=%%%2:{}=%gd_name%%%"
"%gd_clp%CLPLOGCMD" -m "%gd_text%" -i %gd_id% -l %1
exit /b 0

rem :ask: sets gd_code to what the service's dcstatus ended with
:ask
call set gd_line=%%DCSUP_STATUS_%gd_key%%%
"%ComSpec%" /d /s /c "%%gd_line%%"
set "gd_code=%errorlevel%"
exit /b 0

rem :site PLACE: the site's own code (G43), on the highest-priority node or another (G21)
:site
set "gd_branch=home"
if "%CLP_SERVER%"=="OTHER" set "gd_branch=other"
set "gd_site="
if exist "%gd_here%site\%1.bat" set "gd_site=%1.bat"
if exist "%gd_here%site\%1-%gd_branch%.bat" set "gd_site=%1-%gd_branch%.bat"
if not defined gd_site exit /b 0
set gd_line="%gd_here%site\%gd_site%"
"%ComSpec%" /d /s /c "%%gd_line%%"
exit /b 0
