"""A clp.conf in our own words: a group with floating IP, disk, script and resident application, as the guide wants it (G40)."""

from __future__ import annotations

CANARY = "CANARY-7f3a"
"""Stands in every place of the sample where a real file holds a secret, each with its own ending."""

SAMPLE = f"""\
<?xml version="1.0" encoding="ASCII"?>
<root>
  <all><charset>ASCII</charset><encode>SJIS</encode><serveros>windows</serveros></all>
  <trekking><savedversion>4.3.0-1</savedversion><configid>17</configid></trekking>
  <cluster><name>Pair</name><comment>業務系クラスタ</comment>
    <account id="0"><user>{CANARY}-user</user><password>{CANARY}-account</password></account>
    <mail><smtp><smtpsrv id="0"><account>{CANARY}-mail</account><password>{CANARY}-smtp</password></smtpsrv></smtp></mail>
    <trap><snmpsrv id="0"><community>{CANARY}-snmp</community></snmpsrv></trap>
    <api><use>1</use><password>{CANARY}-api</password></api>
  </cluster>
  <server name="NodeA"><priority>0</priority><device id="0"><type>lan</type><info>10.0.0.1</info></device>
    <device id="400"><type>mdc</type><info>{CANARY}-device</info></device></server>
  <server name="NodeB"><priority>1</priority><device id="0"><type>lan</type><info>10.0.0.2</info></device></server>
  <heartbeat><types name="lankhb"/><lankhb name="lankhb1"><priority>0</priority></lankhb></heartbeat>
  <group name="failover1"><comment>{CANARY}-comment</comment>
    <resource name="fip@fip1"/><resource name="sd@sd1"/><resource name="script@script1"/><resource name="appli@appli1"/>
    <policy name="NodeA"><order>0</order></policy><policy name="NodeB"><order>1</order></policy>
    <start>1</start><failover>1</failover><failback>0</failback>
  </group>
  <resource>
    <types name="fip"/><fip name="fip1"><parameters><ip>10.0.0.9</ip></parameters></fip>
    <types name="sd"/><sd name="sd1"><parameters><volumemountpoint>E:</volumemountpoint></parameters></sd>
    <types name="script"/><script name="script1"><depend name="sd1"/><depend name="fip1"/>
      <act><timeout>1980</timeout><action>1</action></act><deact><timeout>1980</timeout><action>0</action></deact>
      <parameters><timeout><start>1800</start><stop>1800</stop></timeout><act><normalval>0</normalval></act>
        <execuser>{CANARY}-execuser</execuser></parameters></script>
    <types name="appli"/><appli name="appli1"><depend name="script1"/><parameters><resident>1</resident>
      <actpath>"C:\\Program Files\\site\\watch.bat" /password {CANARY}-argument</actpath>
      <actaccount>{CANARY}-actaccount</actaccount></parameters></appli>
  </resource>
  <monitor>
    <types name="appliw"/><appliw name="appliw1"><target>appli1</target><polling><interval>10</interval></polling>
      <relation><type>grp</type><name>failover1</name></relation>
      <emergency><threshold><restart>0</restart><fo2>1</fo2></threshold></emergency></appliw>
    <types name="sqlserverw"/><sqlserverw name="sqlserverw1"><parameters><password>{CANARY}-monitor</password></parameters></sqlserverw>
  </monitor>
  <messages><rc id="60"><cmd id="0"><cmdline>C:\\dcsup\\dcsup.exe hook alert --text {CANARY}-cmdline</cmdline></cmd></rc></messages>
  <webmgr><security><password>{CANARY}-webmgr</password></security></webmgr>
</root>
"""

START_BAT = f"""\
@echo off
rem dcsup is named in a comment only
set PASSWORD={CANARY}-script
call "C:\\DataCoordinatorRA\\agent\\bin\\dcagent.bat" start
call "C:\\DataCoordinatorRA\\server\\bin\\dcserver.bat" recover
"""


def sample(*changes: tuple[str, str], encoding: str = "cp932") -> bytes:
    """The sample as a file's bytes, with texts in it replaced; each must be there."""
    text = SAMPLE
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return text.encode(encoding)
