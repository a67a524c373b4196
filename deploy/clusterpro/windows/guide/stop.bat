@echo off
rem The guide's own stop sequence (G10, G11, G14, G15, G17-G19, G41, G43), in the reverse order of the start, for going back;
rem lib-guide.bat says what it leaves out. CLP_EVENT says how the instance was started, not why it stops. Nothing is checked after a stop
rem (G41). Like the guide's samples it always ends with 0, whatever happened.
setlocal EnableExtensions DisableDelayedExpansion
set "gd_script=stop"
set "gd_here=%~dp0"
call "%gd_here%lib-guide.bat" :begin
if "%CLP_EVENT%"=="START" goto :stop
if "%CLP_EVENT%"=="FAILOVER" goto :stop
call "%gd_here%lib-guide.bat" :broadcast MSG_NO_CLUSTER
exit /b 0

:stop
if "%CLP_DISK%"=="FAILURE" goto :no_disk
call "%gd_here%lib-guide.bat" :site before-stop
set "gd_order="
for %%s in (%DCSUP_SERVICES%) do call set "gd_order=%%s %%gd_order%%"
for %%s in (%gd_order%) do call :stop_one %%s
call "%gd_here%lib-guide.bat" :site after-stop
exit /b 0

:no_disk
call "%gd_here%lib-guide.bat" :broadcast MSG_NO_DISK
exit /b 0

:stop_one
call "%gd_here%lib-guide.bat" :choose %1
call "%gd_here%lib-guide.bat" :run
exit /b 0
