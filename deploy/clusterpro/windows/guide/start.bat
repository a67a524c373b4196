@echo off
rem The guide's own start sequence (G8, G9, G12, G13, G16-G21, G23, G43), for going back; lib-guide.bat says what it leaves out.
rem Like the guide's samples it always ends with 0, whatever happened.
setlocal EnableExtensions DisableDelayedExpansion
set "gd_script=start"
set "gd_here=%~dp0"
call "%gd_here%lib-guide.bat" :begin
if "%CLP_EVENT%"=="RECOVER" goto :recover
if "%CLP_EVENT%"=="START" goto :start
if "%CLP_EVENT%"=="FAILOVER" goto :start
call "%gd_here%lib-guide.bat" :broadcast MSG_NO_CLUSTER
exit /b 0

rem this node is back in the cluster; nothing is started (G16)
:recover
call "%gd_here%lib-guide.bat" :site recover
exit /b 0

:start
if "%CLP_DISK%"=="FAILURE" goto :no_disk
for %%s in (%DCSUP_SERVICES%) do call :start_one %%s
if "%CLP_EVENT%"=="START" call "%gd_here%lib-guide.bat" :site start-normal
if "%CLP_EVENT%"=="FAILOVER" call "%gd_here%lib-guide.bat" :site start-failover
exit /b 0

:no_disk
call "%gd_here%lib-guide.bat" :broadcast MSG_NO_DISK
exit /b 0

rem after a good start: wait first, then ask; without limit (G20)
:start_one
call "%gd_here%lib-guide.bat" :choose %1
call "%gd_here%lib-guide.bat" :run
if not "%gd_code%"=="0" exit /b 0
:poll
call "%gd_here%lib-guide.bat" :pause %gd_wait%
call "%gd_here%lib-guide.bat" :ask
if not "%gd_code%"=="0" goto :poll
exit /b 0
