@echo off
rem The group's stop script (CLUSTERPRO script resource) in mode supervise. Settings and rules: lib.bat.
rem Returns 0, also when nothing was to be done (no cluster, no disk) and when a command failed: a failed stop makes CLUSTERPRO shut the
rem operating system down by default. Only with DCSUP_REPORT_FAILURE=1, and a service proved to be running at the deadline, it returns 1.
setlocal EnableExtensions DisableDelayedExpansion
set "ds_script=stop"
set "ds_here=%~dp0"
call "%ds_here%lib.bat" :begin
if errorlevel 1 exit /b 0
if "%CLP_EVENT%"=="START" goto :stop
if "%CLP_EVENT%"=="FAILOVER" goto :stop
call "%ds_here%lib.bat" :broadcast MSG_NO_CLUSTER
call "%ds_here%lib.bat" :decline cluster-not-running
exit /b 0

:stop
call "%ds_here%lib-tickets.bat" :clear_ground
if not "%CLP_DISK%"=="FAILURE" goto :has_disk
call "%ds_here%lib.bat" :broadcast MSG_NO_DISK
call "%ds_here%lib.bat" :decline disk-failure
exit /b 0

:has_disk
call "%ds_here%lib.bat" :site before-stop
call "%ds_here%lib-plain.bat" :list
call "%ds_here%lib-plain.bat" :ask_dcsup %DCSUP_STOP_DEADLINE%
set "ds_result=0"
if "%ds_hook_code%"=="0" goto :end
if "%ds_hook_code%"=="40" goto :judge
call "%ds_here%lib-plain.bat" :fall_back
if not defined ds_taken goto :end
for /l %%n in (1,1,%ds_commands%) do call :stop_one %%n
if not defined ds_taken goto :end

rem the end state decides, and only where the site asked for it (G41: the guide checks nothing after a stop)
:judge
if "%DCSUP_REPORT_FAILURE%"=="1" for /l %%n in (1,1,%ds_commands%) do call :judge_one %%n

:end
call "%ds_here%lib-tickets.bat" :close %ds_result%
call "%ds_here%lib.bat" :site after-stop
exit /b %ds_result%

rem :stop_one N: runs the verb unless the journal has it ended; dcstatus is not asked first. A failed one keeps no other from its stop.
:stop_one
if not defined ds_taken exit /b
call "%ds_here%lib-tickets.bat" :take
if not defined ds_taken exit /b
set "ds_entry="
if defined ds_ticket call "%ds_here%lib-tickets.bat" :journal_of %ds_ticket% %1
if "%ds_entry%"=="ok" exit /b
if "%ds_entry%"=="fail" exit /b
call "%ds_here%lib-plain.bat" :run %1
if not defined ds_ran set "ds_taken="
if not defined ds_ran exit /b
if not "%ds_code%"=="0" call "%ds_here%lib.bat" :cluster_log "%ds_service%" ERR MSG_STOP_FAILED
exit /b

rem :judge_one N: whether dcstatus still says 0 at the deadline. Unknown is no proof.
:judge_one
if not "%ds_result%"=="0" exit /b
call "%ds_here%lib-plain.bat" :command %1
:judge_look
call "%ds_here%lib.bat" :ask_status "%ds_service%"
if not "%ds_code%"=="0" exit /b
if %ds_age% geq %DCSUP_STOP_DEADLINE% goto :still_running
call "%ds_here%lib.bat" :second
goto :judge_look
:still_running
set "ds_result=1"
call "%ds_here%lib.bat" :cluster_log "%ds_service%" ERR MSG_STILL_RUNNING
exit /b
