@echo off
rem The group's start script (CLUSTERPRO script resource) in mode supervise. Settings and rules: lib.bat.
rem Returns 0 when every service is up; 40 when one is not; 1 when nothing was to be done here (no cluster, no disk).
setlocal EnableExtensions DisableDelayedExpansion
set "ds_script=start"
set "ds_here=%~dp0"
call "%ds_here%lib.bat" :begin
if errorlevel 1 exit /b 1
if "%CLP_EVENT%"=="START" goto :start
if "%CLP_EVENT%"=="FAILOVER" goto :start
if "%CLP_EVENT%"=="RECOVER" goto :rejoined
call "%ds_here%lib.bat" :broadcast MSG_NO_CLUSTER
call "%ds_here%lib.bat" :decline cluster-not-running
exit /b 1

rem this node is back in the cluster; nothing is started (G16)
:rejoined
call "%ds_here%lib.bat" :site recover
call "%ds_here%lib.bat" :decline recover
exit /b 0

:start
call "%ds_here%lib-tickets.bat" :clear_ground
if not "%CLP_DISK%"=="FAILURE" goto :has_disk
call "%ds_here%lib.bat" :broadcast MSG_NO_DISK
call "%ds_here%lib.bat" :decline disk-failure
exit /b 1

:has_disk
call "%ds_here%lib-plain.bat" :list
call "%ds_here%lib-plain.bat" :ask_dcsup %DCSUP_START_DEADLINE%
set "ds_result=40"
if "%ds_hook_code%"=="0" set "ds_result=0"
if "%ds_hook_code%"=="0" goto :end
if "%ds_hook_code%"=="40" goto :verdict
call "%ds_here%lib-plain.bat" :fall_back
if not defined ds_taken goto :end
set "ds_result=0"
for /l %%n in (1,1,%ds_commands%) do call :start_one %%n
goto :end

rem the ERR line for a start that dcsup's verdict calls failed (G19): for the service whose command failed, else the last
:verdict
set "ds_guilty="
for /l %%n in (1,1,%ds_commands%) do call :blame %%n
call "%ds_here%lib.bat" :cluster_log "%ds_service%" ERR MSG_START_FAILED

:end
call "%ds_here%lib-tickets.bat" :close %ds_result%
if "%ds_result%.%CLP_EVENT%"=="0.START" call "%ds_here%lib.bat" :site start-normal
if "%ds_result%.%CLP_EVENT%"=="0.FAILOVER" call "%ds_here%lib.bat" :site start-failover
exit /b %ds_result%

:blame
if defined ds_guilty exit /b
call "%ds_here%lib-plain.bat" :command %1
call "%ds_here%lib-tickets.bat" :journal_of %ds_ticket% %1
if not "%ds_entry%"=="ok" set "ds_guilty=1"
exit /b

rem :start_one N: command N of the list, from where the journal stands, unless one before it failed
:start_one
if not "%ds_result%"=="0" exit /b
call "%ds_here%lib-tickets.bat" :take
if not defined ds_taken set "ds_result=40"
if not defined ds_taken exit /b
call "%ds_here%lib-plain.bat" :command %1
set "ds_entry="
if defined ds_ticket call "%ds_here%lib-tickets.bat" :journal_of %ds_ticket% %1
set "ds_words=MSG_START_FAILED"
if "%ds_entry%"=="fail" goto :failed
call "%ds_here%lib.bat" :ask_status "%ds_service%"
if "%ds_entry%"=="ok" goto :started
if "%ds_code%"=="0" goto :is_healthy
call "%ds_here%lib-plain.bat" :run %1
if not defined ds_ran set "ds_result=40"
if not defined ds_ran exit /b
if not "%ds_code%"=="0" goto :failed
goto :wait
:is_healthy
call "%ds_here%lib-plain.bat" :announce %1
call "%ds_here%lib-plain.bat" :note_healthy %1
exit /b

rem it was started by dcsup: it has had its chance when the deadline has passed
:started
if "%ds_code%"=="0" exit /b
set "ds_words=MSG_START_LATE"
if %ds_age% geq %DCSUP_START_DEADLINE% goto :failed

rem polls dcstatus until it is 0, a pause before each poll (G20), but no longer than the start's deadline. The first pause is always a whole
rem one, so that a service which has just been started gets its chance.
:wait
set "ds_words=MSG_START_LATE"
set "ds_wait=20"
if "%ds_kind%"=="agent" set "ds_wait=10"
if "%ds_kind%"=="command" set "ds_wait=10"
call "%ds_here%lib.bat" :whole WAIT_%ds_key% %ds_wait%
call set "ds_wait=%%DCSUP_WAIT_%ds_key%%%"
:poll
call "%ds_here%lib.bat" :pause %ds_wait%
call "%ds_here%lib.bat" :ask_status "%ds_service%"
if "%ds_code%"=="0" exit /b
set /a ds_left=DCSUP_START_DEADLINE-ds_age
if %ds_left% leq 0 goto :failed
if %ds_left% lss %ds_wait% set "ds_wait=%ds_left%"
goto :poll

:failed
set "ds_result=40"
call "%ds_here%lib.bat" :cluster_log "%ds_service%" ERR %ds_words%
exit /b
